"""What Redis keeps for a while; none of it is needed to judge a record."""
