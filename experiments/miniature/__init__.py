"""What only the quickstart needs: its theorems, its model, its arms."""
