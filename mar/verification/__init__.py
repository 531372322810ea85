"""The contract tests as plain functions: for our registry and for a user's own parts."""
