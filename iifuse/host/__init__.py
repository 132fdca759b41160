"""What one instance knows: its sets, files and volumes, and what it has noted of them."""
