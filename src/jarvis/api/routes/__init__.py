"""Routes by what they are about; each asks the one authorisation function."""
