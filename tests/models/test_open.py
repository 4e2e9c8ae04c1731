"""model.keras can be loaded with Keras alone, after `import tfdetect`."""

import subprocess
import sys

import keras
import pytest
from detectors import LARGE, clip_shape, make_detector

from tfdetect import models
from tfdetect.detector import REGISTRY
from tfdetect.errors import UserError

OPEN = "import sys; {}; [keras.models.load_model(path) for path in sys.argv[1:]]; print(len(sys.argv) - 1)"


@pytest.fixture(scope="module")
def saved(request, tmp_path_factory):
    """Paths of a model.keras of each registered detector, compiled as training saves it."""
    folder, paths = tmp_path_factory.mktemp("saved"), []
    for name, cls in sorted(REGISTRY.items()):
        if name not in LARGE:
            detector = make_detector(cls)
            model = detector.build(clip_shape(cls))
            model.compile("adam", detector.losses())
            paths.append(str(folder / f"{name}.keras"))
            model.save(paths[-1])
            keras.backend.clear_session()
    return paths


@pytest.mark.parametrize("imports, names", [("import tfdetect, keras", ""), ("import keras, tfdetect", "residual")])
def test_every_detector_loads_in_a_new_process_in_either_import_order(saved, imports, names):
    paths = [path for path in saved if names in path]  # the second order need only show that layers of the suite are known
    done = subprocess.run([sys.executable, "-c", OPEN.format(imports), *paths], capture_output=True, text=True)
    assert done.stdout.split()[-1:] == [str(len(paths))], done.stderr[-2000:]


def test_importing_the_package_imports_neither_keras_nor_numpy():
    code = "import sys, tfdetect; print(sorted({'keras', 'tensorflow', 'numpy', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("where", ["function", "inside"])
def test_a_file_with_program_code_is_refused(where, tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)])
    if where == "inside":
        model = keras.Sequential([keras.Input((3, 2)), keras.layers.TimeDistributed(model)])
    model.save(tmp_path / "m.keras")
    with pytest.raises(UserError, match=r"m\.keras has a Lambda layer, which is program code") as caught:
        models.load(tmp_path / "m.keras")
    assert len(str(caught.value).splitlines()) == 1
