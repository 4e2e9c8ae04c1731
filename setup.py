"""Puts recipes/ and docs/ inside the installed package, which TOML cannot say; pyproject.toml says all the rest."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["tfdetect*"]), "tfdetect.recipes", "tfdetect.docs"],
    package_dir={"tfdetect.recipes": "recipes", "tfdetect.docs": "docs"},
    package_data={
        "tfdetect": ["py.typed"],
        "tfdetect.pages": ["*.js"],
        "tfdetect.server": ["page/*"],
        "tfdetect.recipes": ["*.yaml"],
        "tfdetect.docs": ["*.md"],
    },
)
