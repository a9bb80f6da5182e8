# %% [markdown]
# # train_and_map

# %%
print(1)
