"""Weightworks: training as a service that you run yourself. This is what you install to use it from afar."""

from importlib.metadata import version

from weightworks.client import Client
from weightworks.errors import WeightworksError

__all__ = ["Client", "WeightworksError", "__version__"]
__version__ = version("weightworks")
