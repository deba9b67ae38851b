"""What single features sound like, in mel frames and in words."""
