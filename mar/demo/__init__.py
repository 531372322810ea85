"""A local page: choose or paint an order and watch a run generate along it."""
