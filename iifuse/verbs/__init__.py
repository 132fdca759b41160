"""What people order, one module for each; start and stop are among them."""
