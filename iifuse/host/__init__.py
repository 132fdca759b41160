"""What one instance knows: its sets, files and volumes, and what is recorded about them."""
