//! Collections and vectors: requests as public clients send them, answers as they read them.
