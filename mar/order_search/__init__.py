"""Orders found from data: searched, or learned with the model."""
