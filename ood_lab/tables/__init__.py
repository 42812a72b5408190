"""The papers' tables as runnable objects: what they print, the runs they need, ours beside theirs."""
