"""Pictures of plans, levers and trends, as SVG or PNG by the file's ending.

They are read in print and without colour: every mark has its own shape, hatch or dash and its name
beside it. One file a picture; `canvas` has what they share.
"""
