"""Judge clips: whether they show what was asked, how near they are to others, and how steady they are."""
