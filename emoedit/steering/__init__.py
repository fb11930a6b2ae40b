"""What knows emotions: fitted, small, and the only thing an edit needs beside a frozen backbone."""
