"""The commands of `python -m tasks`: a file each, with a `COMMAND`. `tasks.options` has their
options.
"""

from tasks import settings as settings  # before Luigi: it refuses what Luigi could not read
