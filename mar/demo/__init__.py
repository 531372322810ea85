"""A local page on which one chooses or paints an order and watches a run generate along it."""
