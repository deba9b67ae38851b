"""Open sets of recordings that ``make-pack --download`` knows, through libraries that know their layout."""
