"""The door to ``trainbus_models`` under the name that the guide gives it.

Nothing of the project imports this package, so that another ``models`` may stand in its
place.
"""
