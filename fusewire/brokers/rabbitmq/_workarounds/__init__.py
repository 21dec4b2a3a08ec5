"""What aiormq and pamqp do that we cannot live with, and what stands around it.

Each module says which version does what, and goes when upstream has changed it.
"""
