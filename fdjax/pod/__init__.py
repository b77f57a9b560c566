"""`fdjax doctor --pod`: a look at every host before a run burns time.

Every process says what it is and has; all compare it, and reach the same findings.
"""
