"""Reports: tables and pages made from one typed result."""
