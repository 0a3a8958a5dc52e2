"""A copy of the store that can be put back: taken while the appliance runs, held against its manifest before use."""

from hsmsigner.backup.restoring import Restored, restore_backup
from hsmsigner.backup.taking import NOT_INCLUDED, take_backup

__all__ = ["NOT_INCLUDED", "Restored", "restore_backup", "take_backup"]
