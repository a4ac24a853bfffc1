"""Ten calls of a client that openapi-python-client made from the document."""

import sys
import time

from client import Client
from client.api.configurations import batch_configurations, get_configuration
from client.api.orders import create_order
from client.api.pipeline import order_timeline
from client.api.products import (
    create_product,
    get_product,
    list_products,
    patch_product,
    search_products,
)
from client.api.users import create_user
from client.models import (
    BatchConfigurationsBody,
    OrderCreate,
    ProductCreate,
    ProductPatch,
    UserCreate,
)


def expect(answer, status):
    assert answer.status_code == status, (answer.status_code, answer.content)
    assert answer.parsed is not None, answer.content
    return answer.parsed


api = Client(base_url=sys.argv[1])
key = f"py-{time.time_ns()}"
body = ProductCreate.from_dict(
    {"id": key, "name": "Lamp", "price": 49.99, "stock": 5, "category": "light"}
)
created = expect(create_product.sync_detailed(client=api, body=body), 201)
assert (created.price, created.version) == (49.99, 1), created
expect(get_product.sync_detailed(key, client=api), 200)
page = expect(list_products.sync_detailed(client=api, limit=1000), 200)
assert any(item.id == key for item in page.items), page
changed = expect(
    patch_product.sync_detailed(
        key,
        client=api,
        body=ProductPatch.from_dict({"name": "Lamp, large"}),
        if_match='"1"',
    ),
    200,
)
assert changed.version == 2, changed
expect(search_products.sync_detailed(client=api, q="large"), 200)
user = UserCreate.from_dict(
    {"id": key, "email": f"{key}@example.com", "name": "Ann"}
)
expect(create_user.sync_detailed(client=api, body=user), 201)
order = OrderCreate.from_dict(
    {"user_id": key, "items": [{"product_id": key, "quantity": 1}]}
)
order = expect(create_order.sync_detailed(client=api, body=order), 201)
expect(order_timeline.sync_detailed(order.id, client=api), 200)
batch = BatchConfigurationsBody.from_dict(
    {"operations": [{"op": "create", "id": key, "data": {"value": {"on": True}}}]}
)
batch = expect(batch_configurations.sync_detailed(client=api, body=batch), 207)
assert batch.results[0].status == 201, batch
expect(get_configuration.sync_detailed(key, client=api), 200)
print("10 calls")
