"""Many runs: a grid becomes jobs that any number of machines share."""
