"""What users order: a module for each command. The start and the stop are here as well."""
