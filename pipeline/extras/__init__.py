"""What neither `make data` nor training needs: nothing else in `pipeline` imports it, but by a name
in `table.py`.
"""
