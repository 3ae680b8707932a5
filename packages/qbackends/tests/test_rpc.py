from qbackends.testing import RPCTests


class TestOverTheMemoryBroker(RPCTests):
    pass
