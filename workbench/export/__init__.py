"""Students that leave the workbench and come in: bundles for stock diffusers, and checked imports."""

from workbench.export.bundle import BundleManifest, export_student
from workbench.export.importing import import_bundle

__all__ = ["BundleManifest", "export_student", "import_bundle"]
