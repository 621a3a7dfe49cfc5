"""The measurements, and the peers that cowcloop is measured against: ``python -m benches``."""
