"""pretrainedmodels' xception.py, imported without the other networks of that package."""

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

_NAME = "pretrainedmodels.models.xception"


def _import_alone() -> ModuleType:
    """Import the module by its file, under its own name, so that the package finds it too.

    The package (0.7.4) imports all its networks, torchvision's too, and builds two ResNeXt-101s:
    half a gigabyte and over a second.
    """
    package = find_spec(_NAME.partition(".")[0])
    for folder in (package and package.submodule_search_locations) or ():
        spec = spec_from_file_location(_NAME, Path(folder, "models", "xception.py"))
        if _NAME not in sys.modules and spec is not None and spec.loader is not None:
            module = module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except OSError:  # a version that keeps it elsewhere, or a zip file
                break
            sys.modules[_NAME] = module
    return import_module(_NAME)


_module = _import_alone()
xception, SeparableConv2d = _module.xception, _module.SeparableConv2d
