"""How costs move with time, and who can train what.

Cost of frontier training, of a fixed capability and of arithmetic itself, each as an ordinary
least-squares line of its logarithm with its interval, and the map of budgets against model sizes.
Everything is read off the facts: nothing here knows what day it is.
"""
