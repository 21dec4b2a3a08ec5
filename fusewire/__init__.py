"""Circuit breakers for gRPC clients, with parking on RabbitMQ while one is open."""
