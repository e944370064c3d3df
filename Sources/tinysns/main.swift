print("tinysns")
