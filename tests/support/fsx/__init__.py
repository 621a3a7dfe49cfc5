"""Random requests to a served device, and a model of what it may hold, kills included."""
