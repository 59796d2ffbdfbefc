"""What datasets of clips share: tracks of people whom a detector found.  [raw -> tracks] ->
features -> windows"""
