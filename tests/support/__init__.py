"""What the tests stand on: builders of every format, and the real programs.

Nothing in here uses cowcloop's own code: the builders are written from the
format page alone, so that a mistake in the engine cannot hide in them.
"""
