"""The paper's figures: which runs, running them, drawing them."""
