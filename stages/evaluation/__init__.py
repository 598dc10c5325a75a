"""Inside the stage eval: scoring with a shared prompt, judging what lm-eval returns, writing answers."""
