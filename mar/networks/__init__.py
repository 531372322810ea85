"""Networks: what is known -> one context vector for each wanted token. One file per algorithm."""
