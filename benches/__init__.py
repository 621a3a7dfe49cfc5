"""The measurements of cowcloop and of the programs beside it: ``python -m benches``."""
