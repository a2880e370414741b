"""What a capture says as a whole: the story on one screen, and the certificate."""
