"""The checks of `tfdetect doctor`: the installation, the machine, the files it reads, and a tiny training."""
