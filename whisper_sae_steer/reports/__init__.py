"""What figures mean, and pages that show them."""
