"""The two modes as the references show them."""
