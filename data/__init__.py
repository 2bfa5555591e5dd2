"""The door to ``trainbus_data`` under the name that the guide gives it.

Nothing of the project imports this package, so that another ``data`` may stand in its
place.
"""
