"""Order: which sample comes when. Pure arithmetic: nothing here reads, opens or waits."""
