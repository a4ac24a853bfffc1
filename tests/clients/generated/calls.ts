// Ten calls of a client whose types are made from the document.
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

const client = createClient<paths>({ baseUrl: process.argv[2] });

function expect<T>(answer: { data?: T; error?: unknown; response: Response }, status: number): T {
    if (answer.response.status !== status) {
        throw new Error(`${answer.response.url}: ${answer.response.status}: ${JSON.stringify(answer.error)}`);
    }
    return answer.data as T;
}

const id = `ts-${Date.now()}`;
const path = { id };
const created = expect(
    await client.POST("/api/v1/products", { body: { id, name: "Lamp", price: 49.99, stock: 5, category: "light" } }),
    201,
);
const price: number = created.price;
if (price !== 49.99 || created.version !== 1) throw new Error(JSON.stringify(created));
expect(await client.GET("/api/v1/products/{id}", { params: { path } }), 200);
const list = expect(await client.GET("/api/v1/products", { params: { query: { limit: 1000 } } }), 200);
if (!list.items.some((item) => item.id === id)) throw new Error("the list lacks it");
expect(
    await client.PATCH("/api/v1/products/{id}", {
        params: { path, header: { "If-Match": '"1"' } },
        body: { name: "Lamp, large" },
    }),
    200,
);
expect(await client.GET("/api/v1/products/search", { params: { query: { q: "large" } } }), 200);
expect(
    await client.POST("/api/v1/users", { body: { id, email: `${id}@example.com`, name: "Ann" } }),
    201,
);
const order = expect(
    await client.POST("/api/v1/orders", { body: { user_id: id, items: [{ product_id: id, quantity: 1 }] } }),
    201,
);
expect(await client.GET("/api/v1/orders/{id}/timeline", { params: { path: { id: order.id } } }), 200);
const batch = expect(
    await client.POST("/api/v1/configurations/batch", {
        body: { operations: [{ op: "create", id, data: { value: { on: true } } }] },
    }),
    207,
);
if (batch.results[0]?.status !== 201) throw new Error(JSON.stringify(batch));
expect(await client.GET("/api/v1/configurations/{id}", { params: { path } }), 200);
console.log("10 calls");
