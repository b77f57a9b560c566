"""What is asked about a proof, what is observed and how it is judged; text alone."""
