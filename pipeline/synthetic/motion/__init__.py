"""What people do: joint angles over time.  [motion] -> pixels and labels -> raw"""
