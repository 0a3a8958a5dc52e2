"""`hsmsigner doctor`: what would keep an appliance from starting or signing, in plain words with the way out."""

from hsmsigner.doctor.diagnosis import diagnose
from hsmsigner.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "diagnose"]
